"""The kinds of `agentsession.dev/v1alpha1` as pydantic models, and the CustomResourceDefinitions made from them."""
