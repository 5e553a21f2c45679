"""What `conpool.contrib.asgi` answers with: it reads the pools and changes nothing in them.

No reply holds a password, a partition, a byte of an exchange or the text of an unknown error.
"""
