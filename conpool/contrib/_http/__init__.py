"""HTTP over pooled connections, for httpx and httpx2 alike.

It knows the client library only as a module that it is given, under the name of `lib`: both
libraries have the same names. h11 and h2 speak the protocols; conpool moves the bytes.
"""
