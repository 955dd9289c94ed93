-- Appends one record if the source stands where the caller believes it does; follows record.lua.
--
-- KEYS: log, head, and one that never is (script.rs says why)
-- ARGV: channel, source, from, to, '1' if the caller has just read that the source is unknown,
--       nonce, max_entries, max_age_us, max_bytes, payload
-- Returns {1, epoch, seq, time_us} when appended, {0, position} when the source is past `from`,
--         {-1, position} when it is before `from`, {-1} when it is unknown.
local log, head = KEYS[1], KEYS[2]
local source, from, to = ARGV[2], tonumber(ARGV[3]), ARGV[4]

local held = redis.call('HMGET', head, 'epoch', 'seq', 'time_us', 'source:' .. source)
if held[4] then
  local position = tonumber(held[4])
  if position > from then
    return {0, position}
  elseif position < from then
    return {-1, position}
  end
elseif ARGV[5] ~= '1' then
  return {-1}
end

local epoch, seq, time_us, prev_us = next_record(held[1], held[2], held[3], ARGV[6], clock_us())
local record = pack_record(epoch, seq, time_us, prev_us, ARGV[10])
log_record(log, ARGV[7], seq, time_us, record, tonumber(ARGV[8]))
redis.call('HSET', head, 'epoch', string.format('%d', epoch), 'seq', string.format('%d', seq),
  'time_us', string.format('%d', time_us), 'source:' .. source, to)
trim(log, seq, time_us, tonumber(ARGV[8]), tonumber(ARGV[9]), record)
publish(ARGV[1], record)
return {1, epoch, seq, time_us}
