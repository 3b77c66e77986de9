"""AutoAttack (Croce and Hein, 2020): four attacks without parameters to tune, for any number of classes."""
