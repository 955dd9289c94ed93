-- Whether the caller is to tell of a node's evictions; nobody else is to for a minute then, in which it is done or has
-- failed.
--
-- KEYS: a hash with the evictions of each node that were told, and in NODE:until before when none are told again.
-- ARGV: the node, and how many keys it has evicted.
-- Returns the time in seconds if the caller is to tell, else 0.
local node, evicted = ARGV[1], tonumber(ARGV[2])
local now = tonumber(redis.call('TIME')[1])
local held = redis.call('HMGET', KEYS[1], node, node .. ':until')
local told = tonumber(held[1] or 0)
if now < tonumber(held[2] or 0) then
  return 0
end
if evicted < told then
  -- Somebody has reset the count.
  redis.call('HSET', KEYS[1], node, 0)
  told = 0
end
if evicted == told then
  return 0
end
redis.call('HSET', KEYS[1], node .. ':until', now + 60)
return now
