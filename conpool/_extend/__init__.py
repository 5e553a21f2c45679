"""What users subclass to bring their own transport, protocol or observer.

trio's types appear here in signatures only.
"""
