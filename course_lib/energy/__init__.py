"""Energy-based and score-based models, one file per paper."""
