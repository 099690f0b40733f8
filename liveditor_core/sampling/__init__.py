"""Running an edit: the sampler, what a run reports, and what it says when it fails."""
