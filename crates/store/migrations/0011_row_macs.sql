-- What decides who may do what, and what is done, is authenticated with the platform's key: a row
-- that somebody else wrote is refused.
ALTER TABLE tokens ADD COLUMN mac TEXT;
ALTER TABLE operations ADD COLUMN mac TEXT;
