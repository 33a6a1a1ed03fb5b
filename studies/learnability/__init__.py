"""Study: how well metanets predict a target."""
