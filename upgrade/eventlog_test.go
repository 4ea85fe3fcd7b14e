package upgrade

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestEventLogRemembersTheLatest(t *testing.T) {
	l := newEventLog()
	_, _, changed := l.after(0)
	for n := range rememberedEvents + 10 {
		l.add(control.Event{Message: fmt.Sprint(n)})
	}
	<-changed
	events, next, _ := l.after(0)
	require.Len(t, events, rememberedEvents)
	assert.Equal(t, "10", events[0].Message)
	assert.EqualValues(t, rememberedEvents+10, next)
	events, _, _ = l.after(next - 1)
	require.Len(t, events, 1)
	events, _, _ = l.after(next)
	assert.Empty(t, events)
}

func TestEventLogCrossesAnUpgrade(t *testing.T) {
	old, young := newEventLog(), newEventLog()
	for n := range 100 {
		old.add(control.Event{Message: fmt.Sprintf("old %d", n)})
	}
	young.add(control.Event{Message: "young"})
	data := old.export(4000)
	require.LessOrEqual(t, len(data), 4000)
	young.adopt(data)
	events, next, _ := young.after(0)
	assert.Equal(t, "old 99", events[len(events)-2].Message)
	assert.Equal(t, "young", events[len(events)-1].Message)
	assert.EqualValues(t, 101, next)
	for i := range events[1:] {
		assert.Equal(t, events[i].Seq+1, events[i+1].Seq)
	}
	young.adopt(json.RawMessage("garbage"))
	_, next, _ = young.after(0)
	assert.EqualValues(t, 101, next)
	assert.Nil(t, old.export(1))
}
