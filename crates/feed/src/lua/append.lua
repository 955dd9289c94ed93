-- Appends one record to a feed if its source stands where the caller believes it does. Follows record.lua.
--
-- KEYS: the log, the head, and a key that never exists (keys.rs says why).
-- ARGV: channel, source, from, to, '1' if the caller has just read that the feed does not know the source,
--       nonce, max_entries, max_age_us, max_bytes, payload.
-- Returns {APPENDED, epoch, seq, time_us};
--         {DUPLICATE, position} if the source is past `from`;
--         {REFUSED, position} if the source is before `from`, {REFUSED} if the feed does not know it.
local APPENDED, DUPLICATE, REFUSED = 1, 0, -1

local log, head = KEYS[1], KEYS[2]
local channel, source, from, to, is_fresh, nonce = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1', ARGV[6]
local max_entries, max_age_us, max_bytes, payload = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]

local held = redis.call('HMGET', head, 'epoch', 'seq', 'time_us', 'source:' .. source)
if held[4] then
  local position = tonumber(held[4])
  if position > from then
    return {DUPLICATE, position}
  elseif position < from then
    return {REFUSED, position}
  end
elseif not is_fresh then
  return {REFUSED}
end

local epoch, seq, time_us, prev_us = next_record(held[1], held[2], held[3], nonce, clock_us())
local record = pack_record(epoch, seq, time_us, prev_us, payload)
log_record(log, max_entries, seq, time_us, record, max_age_us)
redis.call('HSET', head, 'epoch', string.format('%d', epoch), 'seq', string.format('%d', seq),
  'time_us', string.format('%d', time_us), 'source:' .. source, to)
trim(log, seq, time_us, max_age_us, max_bytes, record)
publish(channel, record)
return {APPENDED, epoch, seq, time_us}
