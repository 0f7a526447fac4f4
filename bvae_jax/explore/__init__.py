"""The explorer: a page that decodes as one moves the latents."""
