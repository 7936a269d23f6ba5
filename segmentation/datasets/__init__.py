"""Files → a catalogue (movie → genres) and partitions of typed ratings."""
