package redis

import "github.com/valkey-io/valkey-go"

// scripts are what the server does in one go. Each can be sent again when the
// answer to it got lost: it then answers the same, and changes nothing more.
type scripts struct {
	begin, commit, abort, settle, claim, release *valkey.Lua
	update, touch, remove                        *valkey.Lua

	createCheckpoint, useCheckpoint, deleteCheckpoint *valkey.Lua
	createToken, findToken, revokeToken, useToken     *valkey.Lua
	useOnce, take                                     *valkey.Lua
	takeSeat, restSeat, leaveSeat                     *valkey.Lua
}

func newScripts() scripts {
	lua := func(text string) *valkey.Lua { return valkey.NewLuaScript(text) }
	return scripts{
		begin: lua(beginLua), commit: lua(commitLua), abort: lua(abortLua), settle: lua(settleLua),
		claim: lua(claimLua), release: lua(releaseLua), update: lua(updateLua), touch: lua(touchLua), remove: lua(removeLua),
		createCheckpoint: lua(createCheckpointLua), useCheckpoint: lua(useCheckpointLua), deleteCheckpoint: lua(deleteCheckpointLua),
		createToken: lua(createTokenLua), findToken: lua(findTokenLua), revokeToken: lua(revokeTokenLua), useToken: lua(useTokenLua),
		useOnce: lua(useOnceLua), take: lua(takeLua),
		takeSeat: lua(takeSeatLua), restSeat: lua(restSeatLua), leaveSeat: lua(leaveSeatLua),
	}
}

// The fields of a session's hash: rec is the record, act its last activity; ver
// its version, born the first of them, idx the one that the indexes by time are
// about, past the last few; new is there while it is being made.

// beginLua makes a record that does not count yet. Another one that does not is
// replaced: whoever makes that begins anew. 0: the id is taken.
const beginLua = `
local k = KEYS[1]
local born = redis.call('HGET', k, 'born')
if born == ARGV[1] then return 1 end
if redis.call('EXISTS', k) == 1 and redis.call('HEXISTS', k, 'new') == 0 then return 0 end
redis.call('DEL', k)
redis.call('HSET', k, 'born', ARGV[1], 'ver', ARGV[1], 'idx', ARGV[1], 'rec', ARGV[2], 'act', ARGV[3], 'new', '1')
redis.call('PEXPIRE', k, ARGV[4])
return 1`

// commitLua makes the record count. 0: it is gone.
const commitLua = `
local k = KEYS[1]
if redis.call('HGET', k, 'born') ~= ARGV[1] then return 0 end
if redis.call('HDEL', k, 'new') == 1 then redis.call('PERSIST', k) end
return 1`

// abortLua removes a record that does not count yet.
const abortLua = `
local k = KEYS[1]
if redis.call('HGET', k, 'born') == ARGV[1] and redis.call('HEXISTS', k, 'new') == 1 then redis.call('DEL', k) end
return 1`

// settleLua makes the record count in its maker's stead, and returns it. nil: it
// is gone.
const settleLua = `
local k = KEYS[1]
if redis.call('HGET', k, 'born') ~= ARGV[1] then return false end
if redis.call('HDEL', k, 'new') == 1 then redis.call('PERSIST', k) end
return redis.call('HMGET', k, 'rec', 'ver', 'idx', 'act', 'born', 'new')`

// claimLua takes a key that nobody has, or that the holder ARGV[2] has, who was
// found to be none. It returns who has it now.
const claimLua = `
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[1])
  return ARGV[1]
end
return holder`

// releaseLua gives a key up.
const releaseLua = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1`

// updateLua replaces version ARGV[1] by ARGV[2]. 0: it is another version by now;
// -1: there is no record.
const updateLua = `
local k = KEYS[1]
local was = redis.call('HMGET', k, 'ver', 'new', 'past')
if not was[1] or was[2] then return -1 end
local past = was[3] or ''
if was[1] == ARGV[2] or string.find(past, ARGV[2], 1, true) then return 1 end
if was[1] ~= ARGV[1] then return 0 end
redis.call('HSET', k, 'ver', ARGV[2], 'rec', ARGV[3], 'past', string.sub(ARGV[2] .. ' ' .. past, 1, 400))
if ARGV[4] == '1' then redis.call('HSET', k, 'idx', ARGV[2]) end
return 1`

// touchLua moves the last activity forward. 0: there is no record.
const touchLua = `
local k = KEYS[1]
local was = redis.call('HMGET', k, 'act', 'new')
if not was[1] or was[2] then return 0 end
if was[1] < ARGV[1] then redis.call('HSET', k, 'act', ARGV[1]) end
return 1`

// removeLua removes version ARGV[1] of a record. 0: it is another version by now;
// -1: there is none.
const removeLua = `
local ver = redis.call('HGET', KEYS[1], 'ver')
if not ver then return -1 end
if ver ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
return 1`
