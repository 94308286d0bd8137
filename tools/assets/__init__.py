"""What writes files of the repository: templates, blueprints, pictures."""
