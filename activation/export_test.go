package activation

var OwnPidfdID = ownPidfdID
