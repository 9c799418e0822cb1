"""From a `Config` to a machine that exists once: plan (pure), apply (journaled), end."""
