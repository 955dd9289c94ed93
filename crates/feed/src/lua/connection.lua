-- Writes down that a device of a user has come.
--
-- KEYS: the user's connections
-- ARGV: server/device, since when (milliseconds since 1970), how long the key lives (seconds)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
