
-- ---- What was asked for, and the news ----

-- Whether this server is of use: it runs scripts, takes what is written, and passes news on.
function operations.probe()
  redis.call('HINCRBY', TOTAL, 'seq', 0)
  tell('probe')
  return 1
end

local reply = operations[said.op]()
if #topics > 0 then redis.call('PUBLISH', key('news'), table.concat(topics, ' ')) end
return reply
