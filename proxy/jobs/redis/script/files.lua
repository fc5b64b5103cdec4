
-- ---- Files ----
--
-- Until it is whole a file is an upload, with a name of its own: another one may bring the same file.

local function drop_upload(upload)
  add_total('bytes', 0 - (number(redis.call('HGET', key('uploads'), upload)) or 0))
  redis.call('HDEL', key('uploads'), upload)
  redis.call('ZREM', key('upload_ends'), upload)
  redis.call('DEL', key('parts', upload))
end

-- ARGV[2] is the next part of an upload; one of which nothing comes for `life` seconds is given up.
function operations.put_part()
  local parts = key('parts', said.upload)
  local there = redis.call('LLEN', parts)
  if there > said.number then return 1 end
  if there < said.number then return redis.error_reply('LOST') end
  if not said.is_owed and not has_room(0, #ARGV[2]) then return full() end
  redis.call('RPUSH', parts, ARGV[2])
  redis.call('HINCRBY', key('uploads'), said.upload, #ARGV[2])
  redis.call('ZADD', key('upload_ends'), time(now + said.life), said.upload)
  add_total('bytes', #ARGV[2])
  return 1
end

-- An upload is whole. The file that is there then: one that was there before stays.
function operations.complete_file()
  local parts = key('parts', said.upload)
  if redis.call('EXISTS', key('file', said.id)) == 1 then
    drop_upload(said.upload)
  elseif said.bytes > 0 and redis.call('EXISTS', parts) == 0 then
    return redis.error_reply('LOST')
  else
    keep_entry(FILE)
    if said.bytes > 0 then redis.call('RENAME', parts, key('parts', said.id)) end
    redis.call('HDEL', key('uploads'), said.upload)
    redis.call('ZREM', key('upload_ends'), said.upload)
  end
  return redis.call('HGETALL', key('file', said.id))
end

function operations.give_up() return drop_upload(said.upload) end

function operations.forget_uploads()
  local old = due(key('upload_ends'))
  for _, upload in ipairs(old) do drop_upload(upload) end
  return #old
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
