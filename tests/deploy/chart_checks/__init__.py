"""What tests of the charts share: rendering, the rules of the Pod Security Standards, programs as judges, generated pages."""
