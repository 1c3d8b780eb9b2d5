"""An example plug-in of evenkeel: a venue of its own (`broker`) and a CSV feed (`feed`)."""
