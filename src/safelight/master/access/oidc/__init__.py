"""Sign-in by an OpenID Connect provider: the provider, the users who may sign in, and the redirects."""
