#!lua
-- Puts flags into the public stream of a workspace, each id once, numbered 1, 2, 3…
--
-- KEYS: stream, ids. ARGV: for each flag its id, its body, the partition and the commit that it came from.
redis.call('XLEN', KEYS[1])
local last = tonumber(redis.call('HGET', KEYS[2], 'last') or '0')
local new = {}
for i = 1, #ARGV, 4 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    last = last + 1
    local number = string.format('%.0f', last)
    redis.call('XADD', KEYS[1], number .. '-0', 'id', ARGV[i], 'body', ARGV[i + 1],
      'partition', ARGV[i + 2], 'commit', ARGV[i + 3])
    redis.call('HSET', KEYS[2], ARGV[i], number, 'last', number)
    new[#new + 1] = ARGV[i]
  end
end
return new
