"""The work that is measured, written against `import gevent`: one function per case of `catalogue.py`.

Drop-in mode gives the very same files bridge under that name.
"""
