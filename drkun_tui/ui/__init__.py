"""What people see: screens and widgets. Talks to the floors below, never to a model."""
