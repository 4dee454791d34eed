"""
What ``python -m asgi_sse`` serves, and how.
"""
