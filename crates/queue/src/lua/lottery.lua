-- The places of tickets. Follows room.lua. The early tickets, up to `room.early`, have places by the permutation of
-- tutti_model::lottery, where it is described; the place of a later ticket is its number.
local ROUNDS = 6

local function round(i, half, modulus)
  return tonumber(string.sub(redis.sha1hex(room.seed .. ':' .. i .. ':' .. half), 1, 8), 16) % modulus
end

-- Applies the rounds `first` to `last` until the number is in range: forwards with `step` 1, backwards with -1.
local function walk(x, first, last, step)
  local modulus = 2
  while modulus * modulus < room.early do
    modulus = modulus * 2
  end
  repeat
    local left, right = math.floor(x / modulus), x % modulus
    for i = first, last, step do
      if step > 0 then
        left, right = right, bit.bxor(left, round(i, right, modulus))
      else
        left, right = bit.bxor(right, round(i, left, modulus)), left
      end
    end
    x = left * modulus + right
  until x < room.early
  return x
end

local function place_of(n)
  return n > room.early and n or walk(n - 1, 1, ROUNDS, 1) + 1
end

local function ticket_at(place)
  return place > room.early and place or walk(place - 1, ROUNDS, 1, -1) + 1
end
