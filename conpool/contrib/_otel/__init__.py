"""What `conpool.contrib.opentelemetry` is made of."""
