"""From files in the layouts that people have to pixels: folders, archives, Parquet shards, and a cache of both."""
