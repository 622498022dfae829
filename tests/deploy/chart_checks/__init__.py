"""What tests of the charts share: rendering, rules of the Pod Security Standards, judges, generated pages."""
