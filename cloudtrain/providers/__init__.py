"""Where machines come from. Providers differ only in how they produce SSH targets."""
