-- Counts one more in calendar windows, or in none if one is full. KEYS[1]: all windows of a key.
-- ARGV: for each window its period's number, first ms, limit, and the first ms after it.
-- Answers: the position of the first full window (0: none), then what each had before.
local answer, full = {0}, false
for i = 1, #ARGV, 4 do
  local kept = redis.call('HGET', KEYS[1], ARGV[i])
  local used = 0
  if kept then
    local start, count = string.match(kept, '^(%d+):(%d+)$')
    -- a node whose clock is behind counts in the window that was entered
    if tonumber(start) >= tonumber(ARGV[i + 1]) then used, ARGV[i + 1] = tonumber(count), start end
  end
  answer[#answer + 1] = used
  if used >= tonumber(ARGV[i + 2]) and not full then full, answer[1] = true, (i + 3) / 4 end
end
if not full then
  local last = 0
  for i = 1, #ARGV, 4 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ':' .. (answer[(i + 3) / 4 + 1] + 1))
    if tonumber(ARGV[i + 3]) > last then last = tonumber(ARGV[i + 3]) end
  end
  if last > 0 then redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last + 120000)) end
end
return answer
