"""One lease, from the moment a caller asks until the connection is given back."""
