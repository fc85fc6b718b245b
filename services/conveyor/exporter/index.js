'use strict'
// Keeps the page up to date without loading it again: asks for what it shows as JSON, and puts each word where it
// belongs. A field of the answer has the id of its place; the items of a list have theirs within a copy of the
// list's template. Only text and a few attributes are ever set, so that nothing in the answer can become markup.

const PAUSE = 1000 // milliseconds from an answer to the next question
const HIDDEN_PAUSE = 10000 // in a tab that nobody sees
const PATIENCE = 5000 // for an answer
const SHARE = 10 // one part of the time in so many, at most, is spent on showing; with thousands of workers that tells

const page = document.documentElement
const title = document.title
const shown = new WeakMap() // what each place shows
let answered = new Date()
let asking = false
let timer

const clock = (date) => date.toLocaleTimeString('sv') // Swedes write times as ISO 8601 does
const local = (iso) => new Date(iso).toLocaleString('sv')

function put(place, value) {
  if (shown.get(place) === value) return
  shown.set(place, value)
  if (place instanceof HTMLProgressElement) {
    place.hidden = value === null
    place.value = value ?? 0
  } else if (place instanceof HTMLTimeElement) {
    place.dateTime = value
    place.textContent = value && local(value)
  } else if (place.textContent !== value) {
    place.textContent = value
  }
}

function fill(item, values) {
  if (item.dataset.tone !== values.tone) item.dataset.tone = values.tone ?? ''
  if (!item.places) item.places = [...item.querySelectorAll('[data-field]')]
  for (const place of item.places) put(place, values[place.dataset.field])
}

function fillList(list, items) {
  const template = list.firstElementChild
  while (list.childElementCount > items.length + 1) list.lastElementChild.remove()
  while (list.childElementCount < items.length + 1) list.append(template.content.cloneNode(true))
  let item = template
  for (const values of items) fill((item = item.nextElementSibling), values)
  const section = list.closest('section')
  if (section) section.hidden = !items.length
}

function show(answer) {
  if (answer.identity !== page.dataset.identity) return location.reload() // another run is at this address now
  for (const [field, value] of Object.entries(answer)) {
    const place = document.getElementById(field)
    if (Array.isArray(value)) fillList(place, value)
    else if (place) put(place, value)
  }
  page.dataset.phase = answer.phase
  document.title = title
}

function miss(why) {
  page.dataset.phase = 'silent'
  put(document.getElementById('phase'), 'no answer')
  put(
    document.getElementById('comment'),
    `since ${clock(answered)}${why}: the run has ended or cannot be reached. What follows is what was seen last.`,
  )
  document.title = `no answer – ${title}`
}

async function ask() {
  if (asking) return
  asking = true
  clearTimeout(timer)
  let pause = PAUSE
  try {
    const response = await fetch(location.pathname, {
      headers: { Accept: 'application/json' },
      cache: 'no-store',
      signal: AbortSignal.timeout(PATIENCE),
    })
    if (response.ok) {
      const answer = await response.json()
      const began = performance.now()
      show(answer)
      answered = new Date()
      page.getBoundingClientRect() // lays the page out now, so that this is counted
      pause = Math.max(PAUSE, SHARE * (performance.now() - began))
    } else {
      miss(` (it says ${response.status})`)
    }
  } catch {
    miss('')
  }
  asking = false
  timer = setTimeout(ask, document.hidden ? HIDDEN_PAUSE : pause)
}

document.addEventListener('visibilitychange', () => document.hidden || ask())
for (const place of document.querySelectorAll('time[datetime]')) {
  if (place.dateTime) place.textContent = local(place.dateTime)
}
timer = setTimeout(ask, PAUSE)
