package calc

// said is what a stage has told the world under each key, and what of it is new
// since the last flush. It makes deltas minimal: a value that equals the one
// told before is not told again.
type said[K comparable, V any] struct {
	last map[K]*V
	news map[K]*V
	same func(a, b *V) bool
}

func newSaid[K comparable, V any](same func(a, b *V) bool) said[K, V] {
	return said[K, V]{last: map[K]*V{}, same: same}
}

// say tells that k is v, or that k is not desired when v is nil. Within one
// flush it is called once per key.
func (s *said[K, V]) say(k K, v *V) {
	last := s.last[k]
	if v == last || v != nil && last != nil && s.same(v, last) {
		return
	}
	if v == nil {
		delete(s.last, k)
	} else {
		s.last[k] = v
	}
	if s.news == nil {
		s.news = map[K]*V{}
	}
	s.news[k] = v
}

// take hands out the news, which the receiver may change.
func (s *said[K, V]) take() map[K]*V {
	news := s.news
	s.news = nil
	return news
}

// words is said for a single value that is told whole.
type words[V any] struct {
	last V
	news *V
	same func(a, b V) bool
}

func (w *words[V]) say(v V) {
	if !w.same(v, w.last) {
		w.last, w.news = v, &v
	}
}

func (w *words[V]) take() *V {
	news := w.news
	w.news = nil
	return news
}

func identicalValues[V comparable](a, b V) bool { return a == b }
