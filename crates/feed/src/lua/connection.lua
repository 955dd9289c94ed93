-- Notes that a device of a user is connected.
--
-- KEYS: the connections of the user, a hash.
-- ARGV: SERVER/DEVICE, since when (milliseconds since 1970), how long the key lives (seconds).
local connections, field, since_ms, lives = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
redis.call('HSET', connections, field, since_ms)
redis.call('EXPIRE', connections, lives)
return 1
