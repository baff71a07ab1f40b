#!lua
-- Forgets the first rows of an outbox: they are in the public stream, durably. Only for who still owns the partition,
-- and not where a failover has taken rows back.
--
-- KEYS: partition, outbox. ARGV: epoch, commit, rows.
local held = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if held[1] == ARGV[1] and tonumber(held[2]) >= tonumber(ARGV[2]) then
  redis.call('LTRIM', KEYS[2], ARGV[3], -1)
end
return 0
