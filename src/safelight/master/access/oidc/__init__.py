"""Sign-in by an OpenID Connect provider: the provider, who of its users may sign in, and the way there and back."""
