package ipset

// Writes returns how many requests were sent that change something. The kernel
// sends no notifications about sets, so tests have nothing else to count.
func (s *Sets) Writes() int { return s.writes }
