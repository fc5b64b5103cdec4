
-- ---- Files ----

-- ARGV[2] is the next part of a file that is not whole yet; one that is given up vanishes after `life` seconds.
function operations.put_part()
  local parts = key('parts', said.id)
  local there = redis.call('LLEN', parts)
  if there > said.number then return 1 end
  if there < said.number then return redis.error_reply('LOST') end
  if not has_room(0, said.size + #ARGV[2]) then return full() end
  redis.call('RPUSH', parts, ARGV[2])
  redis.call('EXPIRE', parts, said.life)
  return 1
end

function operations.complete_file()
  if redis.call('EXISTS', key('file', said.id)) == 1 then return 1 end
  keep_entry(FILE)
  redis.call('PERSIST', key('parts', said.id))
  add_total('bytes', said.size)
  return 1
end

function operations.part() return redis.call('LINDEX', key('parts', said.id), said.number) end

local function drop_file(id)
  add_total('bytes', 0 - redis.call('HGET', key('file', id), 'bytes'))
  drop_entry(FILE, id)
  redis.call('DEL', key('parts', id))
end

function operations.delete_file()
  if not is_found(key('file', said.id), said.caller) then return 0 end
  drop_file(said.id)
  return 1
end

function operations.forget_files()
  local old = due(key('file_ends'))
  for _, id in ipairs(old) do drop_file(id) end
  return #old
end
