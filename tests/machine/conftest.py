from tests.workshop import template, workshop

__all__ = ["template", "workshop"]
