-- One step of a bucket, on Redis's clock. KEYS[1]: the bucket. ARGV: what (take, wait, put, get),
-- tokens (-1: all), size, refill (never, drip, window), tokens in each interval, interval in ms,
-- longest wait in ms. Answers: whether, whole tokens, Unix ms at which it is full (0: never), ms to wait.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local what, count, size = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local refill, per, every = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(kept[1]) or size, tonumber(kept[2]) or now
if now < at then now = at end
if refill == 'drip' then
  tokens = tokens + (now - at) * per / every
  at = now
elseif refill == 'window' and now - at >= every then
  local whole = math.floor((now - at) / every)
  tokens = tokens + whole * per
  at = at + whole * every
end
if tokens >= size then
  tokens, at = size, now
end
local ok, wait = 1, 0
if what == 'put' then
  if count < 0 or tokens + count > size then tokens = size else tokens = tokens + count end
elseif what ~= 'get' then
  if tokens >= count then
    tokens = tokens - count
  else
    ok = 0
    if what == 'wait' and count <= size and refill ~= 'never' then
      local missing = count - tokens
      if refill == 'drip' then
        wait = math.ceil(missing * every / per)
      else
        wait = at + math.ceil(missing / per) * every - now
      end
      if wait <= tonumber(ARGV[7]) then
        tokens, ok = tokens - count, 1
      else
        wait = 0
      end
    end
  end
end
local full = 0
if refill == 'drip' then
  full = now + math.ceil((size - tokens) * every / per)
elseif refill == 'window' and tokens < size then
  full = at + math.ceil((size - tokens) / per) * every
elseif refill == 'window' then
  full = now
end
if what ~= 'get' then
  if tokens >= size then
    redis.call('DEL', KEYS[1])
  else
    redis.call('HSET', KEYS[1], 'tokens', string.format('%.17g', tokens), 'at', string.format('%.0f', at))
    if refill == 'never' then redis.call('PERSIST', KEYS[1])
    else redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', full + 120000)) end
  end
end
if tokens < 0 then tokens = 0 end
return {ok, math.floor(tokens), full, wait}
