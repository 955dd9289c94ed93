-- Decides whether the caller announces the evictions of a node. If so, no other caller does for a minute. By then the
-- caller has announced them or has failed.
--
-- KEYS: a hash. The field NODE holds the number of evictions of a node that were announced, and NODE:until the time
--       before which none is announced again.
-- ARGV: the node, the number of keys that it has evicted.
-- Returns the time in seconds if the caller announces them, else 0.
local CLAIM_SECONDS = 60

local announced, node, evicted = KEYS[1], ARGV[1], tonumber(ARGV[2])
local now = tonumber(redis.call('TIME')[1])
local held = redis.call('HMGET', announced, node, node .. ':until')
local known = tonumber(held[1] or 0)
if now < tonumber(held[2] or 0) then
  return 0
end
if evicted < known then
  -- An operator has reset the count.
  redis.call('HSET', announced, node, 0)
  known = 0
end
if evicted == known then
  return 0
end
redis.call('HSET', announced, node .. ':until', now + CLAIM_SECONDS)
return now
