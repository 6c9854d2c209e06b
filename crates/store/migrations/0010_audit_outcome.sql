-- What became of what somebody was about to do; unknown where the platform ended meanwhile.
ALTER TABLE audit ADD COLUMN outcome TEXT;
