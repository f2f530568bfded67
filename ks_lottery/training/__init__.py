"""What hooks into a stock `transformers.Trainer`: prompts, examples, the probe, and a callback that watches tickets."""
