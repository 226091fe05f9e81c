"""Tables: many recipes over shared stages, compared in one place. A cell is a base recipe with overrides."""
