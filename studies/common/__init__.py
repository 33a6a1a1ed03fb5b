"""What studies share: grids of cells, configs, alignments, figures and pages."""
