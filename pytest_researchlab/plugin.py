"""The hooks of the plugin; nothing heavy is imported before an option asks for it."""
