#!lua
-- One partition's share of a commit, whole or not at all.
--
-- First everything that can be refused or can fail: who owns the partition, where it stands, and that every key has
-- the type that the writes need. Redis undoes nothing, so nothing is written before that. Then the writes, which cannot
-- fail, the position last. (Memory, a read-only replica and a failing disk are judged by Redis before it starts a script
-- with a first line like the one above.)
--
-- KEYS: partition, customers, timers, judged, outbox, workspaces; then the at-risk lists; then the customers.
-- ARGV: see share.rs, which writes it in the order in which it is read here.
local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end
local function take_number()
  return tonumber(take())
end
-- Calls a command with the next `count` arguments, in pieces that fit Lua's stack. Pieces hold whole pairs.
local function feed(command, key, count)
  local last = at + count
  while at < last do
    local piece = math.min(last, at + 1000)
    redis.call(command, key, unpack(ARGV, at + 1, piece))
    at = piece
  end
end

local installation, epoch, expected = take(), take(), take()
local held = redis.call('HMGET', KEYS[1], 'installation', 'epoch', 'seq')
if held[1] ~= installation then
  return {'lost', held[1] or ''}
end
if held[2] ~= epoch or epoch == '0' then
  return {'fenced', held[2]}
end
if expected ~= '' and held[3] ~= expected then
  return {'moved', held[3]}
end

local lists, customers = take_number(), take_number()
redis.call('ZCARD', KEYS[2])
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
redis.call('LLEN', KEYS[5])
redis.call('SCARD', KEYS[6])
for i = 1, lists do
  redis.call('ZCARD', KEYS[6 + i])
end
local known = {}
for i = 1, customers do
  known[i] = redis.call('HLEN', KEYS[6 + lists + i])
end

for i = 1, customers do
  local key = KEYS[6 + lists + i]
  local member, count = take(), take_number()
  local new = redis.call('HSET', key, unpack(ARGV, at + 1, at + count))
  if known[i] == 0 then
    redis.call('ZADD', KEYS[2], 0, member)
  elseif 2 * (known[i] + new) > count then
    -- Fields that are no longer published must not stay behind.
    redis.call('DEL', key)
    redis.call('HSET', key, unpack(ARGV, at + 1, at + count))
  end
  at = at + count
end
feed('ZREM', KEYS[3], take_number())
feed('ZADD', KEYS[3], take_number())
for i = 1, lists do
  feed('ZREM', KEYS[6 + i], take_number())
  feed('ZADD', KEYS[6 + i], take_number())
end
for _ = 1, take_number() do
  local low, high, member = take(), take(), take()
  redis.call('ZREMRANGEBYLEX', KEYS[4], low, high)
  redis.call('ZADD', KEYS[4], 0, member)
end
local seq = string.format('%.0f', tonumber(held[3]) + 1)
for _ = 1, take_number() do
  local workspace, row = take(), take()
  redis.call('SADD', KEYS[6], workspace)
  redis.call('RPUSH', KEYS[5], seq .. ' ' .. row)
end
if take() == '1' then
  redis.call('HSET', KEYS[1], 'meta', take())
end
redis.call('HSET', KEYS[1], 'seq', seq)
return {'ok', seq, redis.call('ZRANGE', KEYS[3], 0, 0)[1] or ''}
