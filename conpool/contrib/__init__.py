"""conpool under libraries of others: one thin module a library, which needs that library's extra."""
