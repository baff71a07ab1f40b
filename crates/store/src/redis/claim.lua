#!lua
-- Gives a partition to a new owner. A later owner is never displaced, and with `renewing` only the owner of that epoch
-- is, or one whose claim a failover has taken back.
--
-- KEYS: partition, timers, outbox. ARGV: installation, epoch, renewing (or empty).
local held = redis.call('HMGET', KEYS[1], 'installation', 'epoch', 'seq')
if held[1] ~= ARGV[1] then
  return {'lost', held[1] or ''}
end
local owner, epoch = tonumber(held[2]), tonumber(ARGV[2])
if owner ~= epoch then
  if ARGV[3] ~= '' and owner > tonumber(ARGV[3]) then
    return {'fenced', held[2]}
  end
  if owner > epoch then
    return {'later', held[2]}
  end
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0)[1] or ''
local outbox = redis.call('LRANGE', KEYS[3], 0, -1)
redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
return {'ok', held[3], first, outbox}
